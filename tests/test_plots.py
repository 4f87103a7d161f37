import numpy as np

from anogan_tf.evaluation import plots

rng = np.random.default_rng(0)


def test_contact_sheet_has_three_pictures_an_image_and_a_colour_bar(tmp_path):
    pixels = rng.uniform(size=(5, 16, 16, 1))
    figure = plots.contact_sheet(pixels, pixels, rng.uniform(size=(5, 16, 16)), [f"image {i}" for i in range(5)])
    assert len(figure.axes) == 5 * 3 + 1
    assert [axes.get_title(loc="left") for axes in figure.axes[:-1:3]] == [f"image {i}" for i in range(5)]
    assert "anomaly map" in figure.axes[-1].get_ylabel()
    plots.save_figure(figure, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_contact_sheet_shows_whole_numbers_as_bright_as_floats():
    pixels = rng.integers(0, 256, (1, 16, 16, 1), np.uint8)
    drawn = [plots.contact_sheet(one, pixels / 255.0, np.zeros((1, 16, 16)), ["a"]).axes[0] for one in (pixels, pixels / 255.0)]
    whole, floats = (np.asarray(axes.images[0].make_image(None, unsampled=True)[0]) for axes in drawn)
    np.testing.assert_allclose(whole.astype(int), floats, atol=1)


def test_search_strip_shows_each_query_and_what_became_of_it():
    queries, made = rng.uniform(size=(2, 16, 16, 1)), rng.uniform(size=(3, 2, 16, 16, 1))
    figure = plots.search_strip(queries, made, np.array([[9.0, 8.0], [7.0, 6.0], [5.0, 4.25]]), ("start", "later", "end"))
    assert [axes.get_title() for axes in figure.axes] == ["", "start", "later", "end", "", "", "", ""]
    assert [axes.get_xlabel() for axes in figure.axes] == ["query", "9", "7", "5", "query", "8", "6", "4.25"]
    assert np.array_equal(figure.axes[7].images[0].get_array(), made[2, 1, ..., 0])


def test_roc_figure_names_each_score_with_its_area():
    labels = np.array([0, 0, 1, 1])
    figure = plots.roc_figure(labels, {"perfect": labels, "wrong": -labels})
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts == ["perfect  1.000", "wrong  0.000"]


def test_histogram_counts_every_image_and_marks_the_threshold():
    labels, scores = np.array([0] * 30 + [1] * 20), rng.normal(size=50)
    axes = plots.score_histogram(labels, scores, 0.5).axes[0]
    assert sum(patch.get_height() for patch in axes.patches) == 50
    assert axes.lines[0].get_xdata()[0] == 0.5

import csv
import gzip
import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from anogan_tf.data.entries import read_entry
from anogan_tf.data.layouts import list_images
from anogan_tf.data.sources import FileSource, load_images, normal_rows, rows_to_score

rng = np.random.default_rng(0)


def save(path, height=12, width=12):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (height, width), np.uint8)).save(path)
    return path


def of(entries, root):
    """What an entry says, with its path below the root."""
    return [
        (
            entry.path[len(str(root)) + 1 :],
            entry.label,
            entry.normal,
            entry.split,
            *(mask[len(str(root)) + 1 :] for mask in entry.masks),
        )
        for entry in entries
    ]


def table(path, rows, delimiter=","):
    with open(path, "w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def test_the_benchmark_layout(tmp_path):
    for name in ("train/good/0.png", "test/good/1.png", "test/crack/2.png", "ground_truth/crack/2_mask.png", "test/hole/3.png"):
        save(tmp_path / name)
    (tmp_path / "license.txt").touch()
    entries = list_images(tmp_path)
    assert of(entries, tmp_path) == [
        ("train/good/0.png", "good", True, "train"),
        ("test/crack/2.png", "crack", False, "test", "ground_truth/crack/2_mask.png"),
        ("test/good/1.png", "good", True, "test"),
        ("test/hole/3.png", "hole", False, "test"),
    ]
    source = FileSource(entries)
    assert normal_rows(source) == [0] and rows_to_score(source) == [1, 2, 3] and rows_to_score(source, "all") == [0, 1, 2, 3]


def test_good_beside_others(tmp_path):
    for row in range(20):
        save(tmp_path / "good" / f"{row:02d}.png")
    save(tmp_path / "scratched" / "a.png")
    save(tmp_path / "ground_truth" / "scratched" / "a_mask.png")
    entries = list_images(tmp_path)
    assert [(entry.label, entry.normal, bool(entry.masks)) for entry in entries] == [("good", True, False)] * 20 + [
        ("scratched", False, True)
    ]
    # A fifth of the good ones is kept for the test, the same ones each time, and never trained on.
    assert sum(entry.split == "test" for entry in entries) == 5 and entries[-1].split == "test"
    assert entries == list_images(tmp_path)
    source = FileSource(entries)
    assert not set(normal_rows(source)) & set(rows_to_score(source)) and len(normal_rows(source)) == 16


def test_folders_by_class(tmp_path):
    for name in ("cat/1.png", "dog/2.png", "dog/3.png"):
        save(tmp_path / name)
    assert [entry.normal for entry in list_images(tmp_path, "dog")] == [False, True, True]
    source = FileSource.of(tmp_path)
    assert [(entry.label, entry.folder) for entry in source.entries] == [("", "cat"), ("", "dog"), ("", "dog")]
    with pytest.raises(ValueError, match=r"folders that may say what they show: cat, dog. Name the one .*--normal-class"):
        normal_rows(source)
    assert rows_to_score(source) == [0, 1, 2]  # a score asks for no label
    assert normal_rows(FileSource.of([tmp_path / "cat", tmp_path / "dog"])) == [0, 1, 2]  # each named
    with pytest.raises(ValueError, match="No image is labelled 'cow'"):
        list_images(tmp_path, "cow")


def test_a_table(tmp_path):
    for name in ("a.png", "b.png", "sub/c.png", "m.png"):
        save(tmp_path / name)
    rows = [("File", "Class", "mask", "split", "group")]
    rows += [("a.png", "good", "", "train", "1"), ("b.png", "bad", "m.png", "test", "2"), ("sub/c.png", "good", "", "test", "3")]
    for delimiter in ",;":
        entries = list_images(table(tmp_path / "parts.csv", rows, delimiter))
        assert of(entries, tmp_path) == [
            ("a.png", "good", True, "train"),
            ("b.png", "bad", False, "test", "m.png"),
            ("sub/c.png", "good", True, "test"),
        ]
        assert [entry.group for entry in entries] == ["1", "2", "3"]


def test_a_table_elsewhere_needs_the_root(tmp_path):
    save(tmp_path / "images" / "a.png")
    parts = tmp_path / "tables" / "parts.csv"
    parts.parent.mkdir()
    table(parts, [("path",), ("a.png",)])
    assert read_entry(list_images(parts, root=tmp_path / "images")[0]).pixels.shape == (12, 12, 1)
    assert "is that the table's root (--root)?" in read_entry(list_images(parts)[0]).reason


@pytest.mark.parametrize(
    "rows, message",
    [
        ([("path", "label")], "parts.csv has no rows"),
        ([("name", "label"), ("a.png", "good")], "has no column path; it has name, label"),
        (
            [("path", "split", "group"), ("a.png", "train", "7"), ("b.png", "test", "7")],
            "Group '7' has images in both 'train' and 'test'",
        ),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        list_images(table(tmp_path / "parts.csv", rows))


def test_a_group_is_never_torn_apart(tmp_path):
    """Groups 0 to 9 are good, of 10 and 11 one image of six is bad: no row of theirs is trained on."""
    rows = [("path", "label", "group")]
    for group in range(12):
        for number in range(6):
            name = save(tmp_path / f"{group}-{number}.png").name
            rows.append((name, "bad" if group > 9 and number == 3 else "good", f"tile {group}"))
    entries = list_images(table(tmp_path / "parts.csv", rows))
    sides = {}
    for entry in entries:
        assert sides.setdefault(entry.group, entry.split) == entry.split
    assert sides["tile 10"] == sides["tile 11"] == "test" and sorted(sides.values()).count("test") == 4


def write_idx(path, values):
    head = bytes([0, 0, 8, values.ndim]) + b"".join(side.to_bytes(4, "big") for side in values.shape)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wb") as file:
        file.write(head + values.tobytes())


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx(tmp_path, suffix):
    images = {part: rng.integers(0, 256, (count, 9, 7), np.uint8) for part, count in (("train", 6), ("t10k", 4))}
    for part, pixels in images.items():
        write_idx(tmp_path / f"{part}-images-idx3-ubyte{suffix}", pixels)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte{suffix}", np.arange(len(pixels), dtype=np.uint8) % 3)
    entries = list_images(tmp_path, "1")
    assert [(entry.split, entry.label, entry.normal) for entry in entries[:5]] == [
        ("test", "0", False), ("test", "1", True), ("test", "2", False), ("test", "0", False), ("train", "0", False)
    ]  # fmt: skip
    for entry in entries:
        part = "train" if entry.split == "train" else "t10k"
        np.testing.assert_array_equal(read_entry(entry).pixels[..., 0], images[part][entry.row])
    assert len(normal_rows(FileSource(entries))) == 2


def test_idx_that_is_cut_short_says_so(tmp_path):
    write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((5, 9, 7), np.uint8))
    whole = (tmp_path / "train-images-idx3-ubyte").read_bytes()
    (tmp_path / "train-images-idx3-ubyte").write_bytes(whole[:-1])
    assert "ends after 314 of 315 bytes" in read_entry(list_images(tmp_path)[0]).reason
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"hello")
    assert "not an IDX file" in read_entry(list_images(tmp_path)[0]).reason


@pytest.mark.parametrize("kind", ["idx", "npz"])
def test_billions_of_images_without_a_pixel_are_none(tmp_path, kind):
    shape = (905_970_943, 4_278_190_088, 0)  # as fuzzing found it: listing them took minutes
    if kind == "idx":
        head = bytes([0, 0, 8, 3]) + b"".join(side.to_bytes(4, "big") for side in shape)
        (tmp_path / "x-images-idx3-ubyte").write_bytes(head + b"123")
    else:
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": shape})
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
            archive.writestr("images.npy", head.getvalue())
    (entry,) = list_images(tmp_path)
    assert "holds no images" in entry.refused


def test_labels_of_more_than_one_axis_are_refused(tmp_path):
    write_idx(tmp_path / "x-images-idx3-ubyte", np.zeros((3, 4, 4), np.uint8))
    write_idx(tmp_path / "x-labels-idx1-ubyte", np.zeros((3, 2), np.uint8))
    (entry,) = list_images(tmp_path)
    assert "3 images, but labels of shape (3, 2)" in entry.refused


@pytest.mark.parametrize("names", [("{}_images", "{}_labels"), ("x_{}", "y_{}")])
def test_arrays_in_parts(tmp_path, names):
    arrays = {}
    for part, count in (("train", 3), ("val", 2), ("test", 4)):
        if part == "val" and names[0] == "x_{}":
            continue
        arrays[names[0].format(part)] = rng.integers(0, 256, (count, 8, 8), np.uint8)
        arrays[names[1].format(part)] = np.arange(count)[:, np.newaxis] % 2  # as MedMNIST has them
    np.savez(tmp_path / "set.npz", **arrays)
    entries = list_images(tmp_path / "set.npz")
    assert {entry.split for entry in entries} == {name for name in ("train", "val", "test") if names[0].format(name) in arrays}
    for entry in entries:
        assert entry.normal == (entry.row % 2 == 0)  # 0 is normal, unless another is named
        np.testing.assert_array_equal(read_entry(entry).pixels[..., 0], arrays[names[0].format(entry.split)][entry.row])


def test_labels_that_say_nothing_of_normal(tmp_path):
    np.savez(tmp_path / "set.npz", images=np.zeros((4, 8, 8), np.uint8), labels=np.array([3.0, 5.0, 5.0, 7.0]))
    source = FileSource.of(tmp_path)
    assert [entry.label for entry in source.entries] == ["3", "5", "5", "7"] and rows_to_score(source, "all") == [0, 1, 2, 3]
    for ask in (normal_rows, rows_to_score):  # what was trained on is not to be scored unawares
        with pytest.raises(ValueError, match="name the one that is normal .--normal-class, as in training.: 3, 5, 7"):
            ask(source)


def test_nothing_outside_a_folder_is_followed(tmp_path):
    outside = save(tmp_path / "outside" / "secret.png")
    inside = tmp_path / "inside"
    save(inside / "own.png")
    (inside / "alias.png").symlink_to(inside / "own.png")
    (inside / "link.png").symlink_to(outside)
    (inside / "folder").symlink_to(outside.parent)
    (inside / "dead.png").symlink_to(tmp_path / "nowhere.png")
    read = {entry.path[len(str(inside)) + 1 :]: read_entry(entry) for entry in list_images(inside)}
    assert read.keys() == {"own.png", "alias.png", "link.png", "folder"}
    assert read["own.png"].pixels is not None and read["alias.png"].pixels is not None
    assert f"a link out of {inside}" in read["link.png"].reason and "a link to a folder" in read["folder"].reason
    rows = [
        ("path", "mask"),
        ("own.png", ""),
        ("../outside/secret.png", ""),
        (str(outside), ""),
        ("own.png", "../outside/secret.png"),
    ]
    entries = list_images(table(inside / "parts.csv", rows))
    assert [bool(entry.refused) for entry in entries] == [False, True, True, True]
    assert "path ../outside/secret.png lies outside" in read_entry(entries[1]).reason


@pytest.mark.parametrize("names", ["Good Bad", "OK NG", "NORMAL PNEUMONIA"])
def test_what_is_normal_may_be_written_large(tmp_path, names):
    normal, other = names.split()
    save(tmp_path / normal / "a.png")
    save(tmp_path / other / "b.png")
    assert {entry.label: entry.normal for entry in list_images(tmp_path)} == {normal: True, other: False}


@pytest.mark.parametrize("inside", ["bottle/train/good/a.png", "a/b/Good/c.png"])
def test_a_folder_that_holds_whole_sets_is_not_a_folder_of_normal_images(tmp_path, inside):
    save(tmp_path / "train" / "a.png")
    save((tmp_path / inside).resolve())
    with pytest.raises(ValueError, match="holds sets of labelled images"):
        list_images(tmp_path)


def test_numbered_folders_ask(tmp_path):
    for name in ("0/a.png", "1/b.png"):
        save(tmp_path / name)
    assert [(entry.label, entry.folder) for entry in list_images(tmp_path)] == [("", "0"), ("", "1")]
    assert [entry.normal for entry in list_images(tmp_path, "0")] == [True, False]


def test_the_sides_of_a_split_have_several_names(tmp_path):
    for name in ("train/good/a.png", "validation/good/b.png", "test/crack/c.png"):
        save(tmp_path / name)
    assert [entry.split for entry in list_images(tmp_path)] == ["train", "val", "test"]
    rows = [("path", "split", "label"), ("a.png", "Training", ""), ("b.png", "Validation", ""), ("c.png", "TEST", "")]
    rows += [("d.png", "", "good"), ("e.png", "", "bad")]
    entries = list_images(table(tmp_path / "parts.csv", rows))
    assert [entry.split for entry in entries] == ["train", "val", "test", "train", "test"]
    with pytest.raises(ValueError, match="the split of f.png is 'dev'; it can be train, val, test"):
        list_images(table(tmp_path / "parts.csv", [*rows, ("f.png", "dev", "")]))


def test_each_path_is_a_set_and_each_image_counts_once(tmp_path):
    for name in ("a/good/1.png", "a/bad/2.png", "b/3.png"):
        save(tmp_path / name)
    entries = list_images([tmp_path / "a", tmp_path / "b", tmp_path / "b" / "3.png"])
    assert [(entry.path.rsplit("/", 1)[1], entry.split) for entry in entries] == [
        ("2.png", "test"),
        ("1.png", "train"),
        ("3.png", ""),
    ]
    assert rows_to_score(FileSource(entries)) == [0, 2] and normal_rows(FileSource(entries)) == [1, 2]
    with pytest.raises(ValueError, match="No image is on the side 'val'"):
        rows_to_score(FileSource(entries[:2]), "val")


def test_masks_of_the_same_name_in_deeper_folders(tmp_path):
    for part in ("a", "b"):
        save(tmp_path / "test" / "crack" / part / "0.png")
        save(tmp_path / "ground_truth" / "crack" / part / "0_mask.png")
    save(tmp_path / "train" / "good" / "0.png")
    masks = [[mask[len(str(tmp_path)) + 1 :] for mask in entry.masks] for entry in list_images(tmp_path)]
    assert masks == [[], ["ground_truth/crack/a/0_mask.png"], ["ground_truth/crack/b/0_mask.png"]]


def test_folders_that_are_links_are_refused(tmp_path):
    outside = tmp_path / "outside"
    save(outside / "good" / "secret.png")
    inside = tmp_path / "inside"
    save(inside / "good" / "a.png")
    (inside / "bad").symlink_to(outside / "good")
    (inside / "ground_truth").symlink_to(outside)
    reasons = {entry.path[len(str(inside)) + 1 :]: entry.refused for entry in list_images(inside)}
    link = "a link to a folder, not followed"
    assert reasons == {"good/a.png": "", "bad": link, "ground_truth": link}
    (tmp_path / "set" / "test").mkdir(parents=True)
    (tmp_path / "set" / "train").symlink_to(outside)
    assert [bool(entry.refused) for entry in list_images(tmp_path / "set")] == [True]


def test_what_is_no_file_and_what_is_hidden_is_passed_over(tmp_path):
    import os

    save(tmp_path / "a.png")
    save(tmp_path / ".ipynb_checkpoints" / "a-checkpoint.png")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    assert len(list_images(tmp_path)) == 1


def test_the_first_of_several_names_of_a_column_counts(tmp_path):
    save(tmp_path / "a.png")
    (entry,) = list_images(table(tmp_path / "parts.csv", [("image", "path"), ("17", "a.png")]))
    assert entry.path.endswith("a.png") and not entry.refused
    for content, message in (
        ("path\nä".encode("latin-1"), "can't be read as a table in UTF-8"),
        (b"path,label\n,good", "no row has a path"),
    ):
        (tmp_path / "bad.csv").write_bytes(content)
        with pytest.raises(ValueError, match=f"bad.csv.*{message}"):
            list_images(tmp_path / "bad.csv")


def test_arrays_that_change_and_labels_that_do_not_fit(tmp_path):
    path = tmp_path / "set.npz"
    for value in (1, 2):
        np.savez(path, images=np.full((3, 8, 8), value, np.uint8), label=np.array([b"good", b"bad", b"good"]))
        images = load_images(path)
        assert [entry.label for entry in images.entries] == ["good", "bad", "good"] and images.pixels[0].max() == value
        images.pixels[0][:] = 9  # the reader's own copy
        assert load_images(path).pixels[0].max() == value
    np.savez(path, images=np.zeros((3, 8, 8), np.uint8), labels=np.zeros(2))
    assert "3 images in images, but 2 labels" in list_images(path)[0].refused


def test_arrays_that_claim_more_than_there_is_are_refused(tmp_path, monkeypatch):
    import zipfile

    head = (
        b"\x93NUMPY\x01\x00\x76\x00"
        + b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000, 8, 8), }".ljust(117)
        + b"\n"
    )
    with zipfile.ZipFile(tmp_path / "claim.npz", "w") as archive:
        archive.writestr("images.npy", head)
    assert "ends after" in list_images(tmp_path / "claim.npz")[0].refused
    monkeypatch.setattr("anogan_tf.data.pictures.LARGE", 1000)
    np.savez_compressed(tmp_path / "bomb.npz", images=np.zeros((100, 100, 100), np.uint8))
    write_idx(tmp_path / "bomb-images-idx3-ubyte.gz", np.zeros((100, 100, 100), np.uint8))
    for name in ("bomb.npz", "bomb-images-idx3-ubyte.gz"):
        assert "decompression bomb" in list_images(tmp_path / name)[0].refused


@pytest.mark.parametrize("names", ["gut schlecht", "IO NIO", "0 1", "normal_dir abnormal_dir", "良品 不良品", "2024-01 2024-02"])
def test_folders_of_unknown_names_are_asked_about(tmp_path, names):
    for name in names.split():
        save(tmp_path / name / "a.png")
    source = FileSource.of(tmp_path)
    with pytest.raises(ValueError, match=f"{', '.join(sorted(names.split()))}. Name the one that is normal .--normal-class"):
        normal_rows(source)
    assert rows_to_score(source) == [0, 1]
    first = names.split()[0]
    assert [entry.normal for entry in list_images(tmp_path, first) if entry.label == first] == [True]


def test_images_beside_folders_of_unknown_names_are_asked_about(tmp_path):
    for name in ("a.png", "odd/b.png"):
        save(tmp_path / name)
    with pytest.raises(ValueError, match="what they show: ., odd"):
        normal_rows(FileSource.of(tmp_path))


def test_a_lone_folder_says_nothing_unless_it_says_bad(tmp_path):
    save(tmp_path / "set" / "pictures" / "day" / "a.png")
    assert normal_rows(FileSource.of(tmp_path / "set")) == [0]
    save(tmp_path / "other" / "NG" / "a.png")
    with pytest.raises(ValueError, match="what they show: NG"):
        normal_rows(FileSource.of(tmp_path / "other"))


def test_a_blank_behind_a_name_is_none(tmp_path):
    for name in ("good /a.png", "bad/b.png"):
        save(tmp_path / name)
    assert {entry.label: entry.normal for entry in list_images(tmp_path)} == {"good": True, "bad": False}


def test_what_lies_beside_folders_of_labels_is_not_lost(tmp_path):
    for name in ("good/a.png", "bad/b.png", "c.png"):
        save(tmp_path / name)
    assert {entry.path[-5:]: entry.refused for entry in list_images(tmp_path) if entry.refused} == {
        "c.png": "lies beside the folders that say what images show (bad, good); move it into one"
    }
    for name in ("train/good/a.png", "test/bad/b.png", "extra/c.png", "train/d.png"):
        save(tmp_path / "split" / name)
    assert sorted(entry.path[-5:] for entry in list_images(tmp_path / "split") if entry.refused) == ["c.png", "d.png"]


def test_sides_without_labels_and_with_unknown_ones(tmp_path):
    for name in (
        "plain/Train/a.png",
        "plain/Test/b.png",
        "asked/train/gut/a.png",
        "asked/test/gut/b.png",
        "asked/test/krumm/c.png",
    ):
        save(tmp_path / name)
    plain = FileSource.of(tmp_path / "plain")
    assert normal_rows(plain) == [0] and rows_to_score(plain) == [1]  # the test side is never trained on
    with pytest.raises(ValueError, match="what they show: gut, krumm"):
        normal_rows(FileSource.of(tmp_path / "asked"))
    named = FileSource.of(tmp_path / "asked", "gut")
    assert normal_rows(named) == [0] and [named.entries[row].normal for row in rows_to_score(named)] == [True, False]


def test_digits_are_no_answer_to_what_is_normal(tmp_path):
    np.savez(tmp_path / "digits.npz", images=np.zeros((3, 8, 8), np.uint8), labels=[0, 1, 7])
    with pytest.raises(ValueError, match="name the one that is normal .*: 0, 1, 7"):
        normal_rows(FileSource.of(tmp_path))


def test_tables_from_windows(tmp_path):
    save(tmp_path / "sub" / "Pru\u0308fung.png")  # as a Mac keeps it, composed of two letters
    content = "sep=;\r\npath;label\r\nsub\\Pr\u00fcfung.png;gut\r\n"
    (tmp_path / "parts.csv").write_bytes(b"\xef\xbb\xbf" + content.encode())
    (entry,) = list_images(tmp_path / "parts.csv", "gut")
    assert entry.normal and read_entry(entry).pixels is not None
    (tmp_path / "commas.csv").write_text("path,label\na,b.png,good\n")
    with pytest.raises(ValueError, match="more cells than columns"):
        list_images(tmp_path / "commas.csv")


def test_labels_are_the_same_however_their_letters_are_composed(tmp_path):
    for name in ("gu\u0308t/a.png", "schlecht/b.png"):
        save(tmp_path / name)
    assert [entry.normal for entry in list_images(tmp_path, "g\u00fct")] == [True, False]

"""What a SavedModel's inputs and outputs mean, as a file beside it: the format itself has no place for words."""

import json
from pathlib import Path

FILE = Path("assets.extra") / "signatures.json"  # beside the warm-up requests; servers leave it alone
INPUTS = {
    "images": "float32 [N, h, w, c] or [N, h, w]: pixels of any size, grey or RGB; {range}",
    "image_bytes": "string [N]: files of PNG, JPEG, BMP or GIF of any size, each its own; in JSON as base64, {{'b64': ...}}; "
    "together {max_pixels} pixels at most, what goes beyond comes back as not valid",
}
UNIT = (
    "in [0, 1]: a level k of 8 bits is k / 255 rounded to float32, one of 16 bits k / 65535; then the same bits as the picture's"
)
STORED = "as they are stored: {low:g} is black, {high:g} white"
OUTPUTS = {
    "score": "float32 [N]: the anomaly score, higher is more anomalous; 1e30 where not valid",
    "residual_score": "float32 [N]: the residual loss of the search",
    "discrimination_score": "float32 [N]: its discrimination loss",
    "p_value": "float32 [N]: (1 + held-out normal images that score as high) / (1 + all of them)",
    "is_anomaly": "bool [N]: score above threshold, or not valid",
    "threshold": "float32 [N]: the same in each row",
    "steps": "int32 [N]: how long the search went",
    "valid": "bool [N]: whether the row was an image",
    "residual": "float32 [N, H, W, C]: |x - G(z)|, the range of pixels being 2",
    "anomaly_map": "float32 [N, H, W]: where it is anomalous: the smoothed residual, or with a comparator a sum in deviations of "
    "normal pixels",
    "heatmap": "float32 [N, H, W]: the anomaly map in [0, 1], on the scale of normal images",
    "reconstruction": "float32 [N, H, W, C]: G(z) in [0, 1]",
    "z": "float32 [N, latent_dim]: where the search ended",
    "size": "int32 [N, 2]: height and width of each row's maps, which are filled up to the largest",
    "window": "float32 [N, 4]: top, left, bottom and right of the maps, where the picture is 0 to 1",
}


def write_description(folder, signatures, value_range, max_pixels):
    """Write `FILE` of a SavedModel.

    Args:
        folder: of the SavedModel.
        signatures: `{name: (input name, output names)}`.
        value_range: of the `Preprocessing`.
        max_pixels: that encoded pictures of a request may have together.
    """
    known = UNIT if value_range is None else STORED.format(low=value_range[0], high=value_range[1])
    described = {
        name: {
            "input": {given: INPUTS[given].format(range=known, max_pixels=max_pixels)},
            "outputs": {output: OUTPUTS[output] for output in outputs},
        }
        for name, (given, outputs) in signatures.items()
    }
    path = Path(folder) / FILE
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"max_pixels": max_pixels, "signatures": described}, indent=2) + "\n", encoding="utf-8")

"""What the README promises, in its words. A slow test that would notice one broken is marked with the promise's name.

`make test` runs these tests and the quick ones. Each promise has at least one (test_package.py).
"""

PROMISES = {
    "learns": "It learns from normal images alone",
    "threshold": "The threshold comes from normal images that were not trained on",
    "bits": "An image's score is its own to the last bit",
    "search": "The search is traced once",
    "file": "One file holds it all",
    "strangers": "A file from strangers that could run code is refused",
    "resumes": "An interrupted run goes on",
    "serves": "A served model answers as the library does",
    "tiles": "Large images are cut into tiles",
    "as written": 'Everything under "Use it" works as it is written',
}

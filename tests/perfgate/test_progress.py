"""How long a long work still takes, as it is said while it runs."""

import pytest

from perfgate.progress import Progress, in_words


def test_each_part_says_how_long_the_rest_takes():
    times = iter([100.0, 105.0, 112.0, 220.0, 221.0])
    progress = Progress(4, lambda: next(times))
    said = [progress.begin() for _ in range(5)]
    # 12 s for two parts, of which two more follow; 120 s for three, and one more; then more parts
    # than were expected, of which one runs.
    assert said == ["1/4", "2/4", "3/4, 10 s left", "4/4, 40 s left", "5/4, 30 s left"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (2, "10 s"),
        (34, "30 s"),
        (114, "110 s"),
        (116, "2 min"),
        (3540, "59 min"),
        (7300, "122 min"),
    ],
)
def test_seconds_in_words(seconds, words):
    assert in_words(seconds) == words

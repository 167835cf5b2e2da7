import numpy as np

from benchmarks.styles import classify, style_figures


def test_classes_that_lie_apart_are_told_apart_and_confusions_are_named():
    rng = np.random.default_rng(0)
    classes = np.repeat(np.arange(3), 10)
    centres = np.array([[9.0, 0, 0, 0], [0, 9, 0, 0], [0, 0, 9, 0]])
    known, asked = (centres[classes] + rng.normal(size=(30, 4)) for _ in range(2))
    guessed = classify(known.astype(np.float32), classes, asked.astype(np.float32))
    assert (guessed == classes).all()
    wrong = classes.copy()
    wrong[:5], wrong[10] = 2, 0
    figures = style_figures(["pencil", "sepia", "studio"], classes, wrong)
    assert figures["accuracy"] == 0.8
    assert figures["accuracy_by_style"] == {"pencil": 0.5, "sepia": 0.9, "studio": 1.0}
    assert figures["taken_for"] == [["pencil", "studio", 5], ["sepia", "pencil", 1]]

import torch

from studiolo.training.layout import Layout

LAYERS = {"a": (5, 3), "b.0": (2, 7)}


def test_factors_are_views_that_cover_the_vector_once() -> None:
    layout = Layout(LAYERS, rank=4)
    flat_S = torch.zeros(layout.size)
    for down_RI, up_OR in layout.factors(flat_S).values():
        down_RI += 1
        up_OR += 1
    assert flat_S.tolist() == [1.0] * (4 * (5 + 3) + 4 * (2 + 7))


def test_factors_of_many_are_those_of_each() -> None:
    layout = Layout(LAYERS, rank=4)
    flat_KS = torch.randn(3, layout.size)
    together = layout.factors(flat_KS)
    for slot, flat_S in enumerate(flat_KS):
        for name, pair in layout.factors(flat_S).items():
            outputs, inputs = LAYERS[name]
            assert [tuple(each.shape) for each in pair] == [(4, inputs), (outputs, 4)]
            assert all(torch.equal(own, of_all[slot]) for own, of_all in zip(pair, together[name], strict=True))


def test_only_up_factors_are_scaled() -> None:
    layout = Layout(LAYERS, rank=4)
    for down_RI, up_OR in layout.factors(layout.scales(0.5)).values():
        assert (down_RI == 1).all()
        assert (up_OR == 0.5).all()

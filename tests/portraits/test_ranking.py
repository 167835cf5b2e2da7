from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from studiolo.albums.records import Reason, Status
from studiolo.portraits.ranking import Acceptance, Candidate, candidates_in_round, fault, rank_candidates, wants_retry

SCORE = st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0])
CANDIDATES = st.lists(
    st.builds(
        Candidate,
        identity_id=st.sampled_from(["anna", "berta"]),
        style=st.sampled_from(["plain", "studio"]),
        index=st.integers(0, 30),
        similarity=SCORE | st.just(float("nan")),
        similarity_unfused=SCORE,
        faces=st.integers(0, 2) | st.just(1),
        face_share=st.sampled_from([0.1, 0.5, 0.7]),
        quality_score=SCORE,
        unsafe_score=st.sampled_from([0.0, 0.1, 0.9]),
    ),
    max_size=25,
    unique_by=lambda item: (item.identity_id, item.style, item.index),
)
GOOD = Candidate("anna", "studio", 0, 0.9, 0.2, 1, 0.6, 0.5, 0.02)
ACCEPTANCE = Acceptance(0.5, 0.8, (0.3, 0.9))
LENIENT = Acceptance(0.0, 1.0, (0.0, 1.0))


def changed(**values: object) -> Candidate:
    return Candidate(**{**GOOD.__dict__, **values})  # type: ignore[arg-type]


def test_faults_in_their_order_of_weight():
    assert fault(GOOD, ACCEPTANCE) == Reason.NONE
    assert fault(changed(similarity=0.49), ACCEPTANCE) == Reason.LOW_SIMILARITY
    assert fault(changed(faces=0, similarity=0.0), ACCEPTANCE) == Reason.NOT_ONE_FACE
    assert fault(changed(faces=2, unsafe_score=0.81), ACCEPTANCE) == Reason.UNSAFE
    assert fault(changed(similarity=0.5, unsafe_score=0.8), ACCEPTANCE) == Reason.NONE


def test_scores_that_are_not_numbers_never_pass():
    assert fault(changed(similarity=float("nan")), LENIENT) == Reason.LOW_SIMILARITY
    assert fault(changed(unsafe_score=float("nan")), LENIENT) == Reason.UNSAFE
    assert fault(changed(face_share=float("nan")), LENIENT) == Reason.FACE_SIZE


def test_faces_must_be_of_a_sensible_size():
    assert fault(changed(face_share=0.29), ACCEPTANCE) == Reason.FACE_SIZE
    assert fault(changed(face_share=0.91, similarity=0.0), ACCEPTANCE) == Reason.FACE_SIZE
    assert fault(changed(face_share=0.3), ACCEPTANCE) == fault(changed(face_share=0.9), ACCEPTANCE) == Reason.NONE
    assert fault(changed(face_share=0.0, faces=0), ACCEPTANCE) == Reason.NOT_ONE_FACE


def test_similarity_then_quality_then_index_decides():
    items = [
        changed(index=0, similarity=0.8, quality_score=0.9),
        changed(index=1, similarity=0.9, quality_score=0.1),
        changed(index=2, similarity=0.9, quality_score=0.4),
        changed(index=3, similarity=0.9, quality_score=0.4),
    ]
    ranked = rank_candidates(items, wanted=3, acceptance=ACCEPTANCE)
    assert [(item.candidate.index, item.rank, item.reason) for item in ranked] == [
        (2, 1, Reason.NONE),
        (3, 2, Reason.NONE),
        (1, 3, Reason.NONE),
        (0, 0, Reason.SURPLUS),
    ]


def test_of_portraits_with_one_face_in_them_the_one_drawn_best_wins():
    items = [changed(index=index, similarity_unfused=unfused) for index, unfused in enumerate((0.1, 0.4, 0.0))]
    assert [item.candidate.index for item in rank_candidates(items, wanted=3, acceptance=ACCEPTANCE)] == [1, 0, 2]


@given(CANDIDATES, st.integers(1, 5))
def test_nothing_is_lost_and_ranks_are_a_permutation(items: list[Candidate], wanted: int):
    ranked = rank_candidates(items, wanted, ACCEPTANCE)
    place = Counter((item.candidate.identity_id, item.candidate.style, item.candidate.index) for item in ranked)
    assert place == Counter((item.identity_id, item.style, item.index) for item in items)
    for group in {(item.identity_id, item.style) for item in items}:
        of_group = [item for item in ranked if (item.candidate.identity_id, item.candidate.style) == group]
        accepted = [item for item in of_group if item.status == Status.OK]
        acceptable = [item for item in of_group if fault(item.candidate, ACCEPTANCE) == Reason.NONE]
        assert [item.rank for item in accepted] == list(range(1, len(accepted) + 1))
        assert len(accepted) == min(wanted, len(acceptable))
        assert all(item.rank == 0 and item.reason for item in of_group if item not in accepted)


@given(CANDIDATES, st.randoms(use_true_random=False), st.integers(1, 5))
def test_order_of_arrival_does_not_matter(items: list[Candidate], random, wanted: int):
    shuffled = items[:]
    random.shuffle(shuffled)
    assert [str(item) for item in rank_candidates(shuffled, wanted, ACCEPTANCE)] == [
        str(item) for item in rank_candidates(items, wanted, ACCEPTANCE)
    ]


def likeness(candidate: Candidate) -> float:
    return candidate.similarity + candidate.similarity_unfused


@given(CANDIDATES)
def test_better_rank_is_never_less_alike(items: list[Candidate]):
    ranked = rank_candidates(items, 5, ACCEPTANCE)
    for one, two in pairwise(ranked):
        same = (one.candidate.identity_id, one.candidate.style) == (
            two.candidate.identity_id,
            two.candidate.style,
        )
        if same and one.rank and two.rank:
            assert likeness(one.candidate) >= likeness(two.candidate)


def test_retries_stay_within_the_budget():
    assert wants_retry(accepted=1, wanted=2, rounds_made=1, retries=1)
    assert not wants_retry(accepted=1, wanted=2, rounds_made=2, retries=1)
    assert not wants_retry(accepted=2, wanted=2, rounds_made=1, retries=9)
    assert not wants_retry(accepted=0, wanted=2, rounds_made=1, retries=0)


def test_next_round_makes_what_is_missing():
    assert candidates_in_round(accepted=0, wanted=4, candidates_per_portrait=2) == 8
    assert candidates_in_round(accepted=3, wanted=4, candidates_per_portrait=2) == 2
    assert candidates_in_round(accepted=5, wanted=4, candidates_per_portrait=2) == 0

import csv
import io

import numpy as np
import pytest

from studiolo.albums.records import Reason, Status
from studiolo.errors import SettingsError
from studiolo.portraits.approvals import Approvals, Decision, chosen_for_more, more_first_index, rank_alike
from studiolo.portraits.orders import order_seed, portrait_id


def portrait(index: int, rank: int, reason: Reason = Reason.NONE, x: float = 0.0, style: str = "studio") -> dict:
    return {
        "portrait_id": portrait_id("anna", style, index),
        "identity_id": "anna",
        "style": style,
        "index": index,
        "rank": rank,
        "status": (Status.DROPPED if reason else Status.OK).value,
        "reason": reason.value,
        "path": f"{index}.png",
        "image_sha256": f"picture {style} {index}",
        "embedding": [x, 0.0],
    }


OWN = [portrait(0, 1, x=1.0), portrait(1, 0, Reason.LOW_SIMILARITY), portrait(2, 2, x=5.0)]
WANTED = {"anna": {"studio": 2, "plain": 1}}


def decided(**decisions: str) -> Approvals:
    """Decisions by `p` and index, on the pictures as they are."""
    rows = [f"{portrait_id('anna', 'studio', int(name[1:]))},{word}," for name, word in decisions.items()]
    return Approvals.read("\n".join(["portrait_id,decision,note", *rows]).encode())


def rows_of(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode())))


def test_the_template_lists_what_is_accepted_and_keeps_what_was_said():
    first = Approvals().written(OWN)
    assert [(row["path"], row["decision"]) for row in rows_of(first)] == [("0.png", ""), ("2.png", "")]
    edited = first.replace(b",,,anna,studio,2", b',Reject,"eyes, closed",anna,studio,2')
    again = Approvals.read(edited).written(OWN)
    assert [(row["decision"], row["note"]) for row in rows_of(again)] == [("", ""), ("reject", "eyes, closed")]
    assert Approvals.read(again).written(OWN) == again


def test_a_decision_is_about_the_picture_it_was_made_on():
    content = Approvals().written(OWN).replace(b",,,anna,studio,1", b",approve,,anna,studio,1")
    approvals = Approvals.read(content)
    assert approvals.decision(OWN[0]) == Decision.APPROVE
    other = {**OWN[0], "image_sha256": "another"}
    assert approvals.decision(other) == Decision.OPEN
    assert rows_of(approvals.written([other]))[0]["decision"] == ""


def test_decisions_on_portraits_of_other_jobs_stay():
    content = Approvals().written(OWN).replace(b",,,anna,studio,1", b",approve,,anna,studio,1")
    kept = Approvals.read(content).written([])
    assert [row["decision"] for row in rows_of(kept)] == ["approve"]
    assert rows_of(Approvals.read(content).without(["anna"], [])) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"portrait_id,decision,note\na,aprove,", "line 2: no decision is called 'aprove'; did you mean 'approve'"),
        (b"portrait_id,desicion,note\na,approve,", "no column is called 'desicion'; did you mean 'decision'"),
        (b"portrait_id,decision,note\na,approve,\na,reject,", "line 3: got the portrait 'a'"),
        (b"portrait_id;decision;note\na;approve;", "no column is called"),
        (b"decision\napprove", "got the portrait None"),
        (b"portrait_id,decision\n\xff,approve", "in UTF-8"),
    ],
)
def test_what_does_not_fit_is_told(content: bytes, says: str):
    with pytest.raises(SettingsError) as caught:
        Approvals.read(content)
    assert says in str(caught.value)


def test_more_is_ordered_of_what_was_chosen_and_of_nothing_else():
    assert chosen_for_more(OWN, decided(p0="more", p2="approve")) == [OWN[0]]
    assert chosen_for_more(OWN, decided(p1="more")) == []  # it was never accepted
    assert chosen_for_more(OWN, Approvals()) == []


def test_what_was_made_for_more_stays_ordered_while_one_of_it_is_approved():
    base = more_first_index(OWN[0]["portrait_id"])
    alike = portrait(base, 3)
    approved = Approvals.read(f"portrait_id,decision,note\n{alike['portrait_id']},approve,".encode())
    assert chosen_for_more([*OWN, alike], approved) == [OWN[0]]
    rejected = Approvals.read(f"portrait_id,decision,note\n{alike['portrait_id']},reject,".encode())
    assert chosen_for_more([*OWN, alike], rejected) == []


def test_of_the_new_candidates_the_nearest_to_the_chosen_one_are_accepted():
    base = more_first_index(OWN[0]["portrait_id"])
    made = [
        portrait(base, 1, x=9.0),
        portrait(base + 1, 0, Reason.SURPLUS, x=1.1),
        portrait(base + 2, 2, x=3.0),
        portrait(base + 3, 0, Reason.LOW_SIMILARITY, x=1.0),
    ]
    ranked = rank_alike([*made, *OWN, portrait(0, 1, style="plain")], WANTED)
    outcome = {row["index"]: (row["rank"], row["reason"]) for row in ranked if row["style"] == "studio"}
    assert outcome == {
        0: (1, ""),
        1: (0, "low_similarity"),
        2: (2, ""),
        base: (0, "surplus"),
        base + 1: (3, ""),
        base + 2: (4, ""),
        base + 3: (0, "low_similarity"),
    }
    assert rank_alike(OWN, WANTED) == OWN
    assert np.isfinite([row["rank"] for row in ranked]).all()


def test_indices_and_seeds_of_more_meet_no_other():
    ids = [portrait_id("anna", "studio", index) for index in range(40)]
    firsts = {more_first_index(item) for item in ids}
    assert len(firsts) == len(ids)
    assert all(10_000 <= first < 2**31 - 10_000 and first % 10_000 == 0 for first in firsts)
    assert len({order_seed(0, "studio"), *(order_seed(0, "studio", item) for item in ids)}) == len(ids) + 1


def test_what_a_spreadsheet_would_calculate_is_written_as_words_and_read_as_it_was():
    """Album names are customers' words, and the studio opens the file in a spreadsheet."""
    names = [
        '=HYPERLINK("http://x")',
        "@SUM(1)",
        "+1",
        "-1+cmd|' /C calc'!A1",
        "\t=1",
        "'=1",
        "''=1",
        "'quoted'",
        "Anna",
    ]
    rows = [
        {**portrait(number, 1), "identity_id": name, "portrait_id": f"{number:064x}"}
        for number, name in enumerate(names)
    ]
    written = Approvals().written(rows)
    cells = {cell for row in csv.reader(io.StringIO(written.decode())) for cell in row if cell}
    assert not [cell for cell in cells if cell[0] in "=@+-\t\r"]
    again = Approvals.read(written)
    assert again.written(rows) == written
    assert len(rows_of(again.without(names[:4], []))) == len(names) - 4  # they are known by their own names
    noted = Approvals.read(f"portrait_id,decision,note\n{0:064x},approve,-- =x\n".encode())
    assert Approvals.read(noted.written(rows)).written(rows) == noted.written(rows)

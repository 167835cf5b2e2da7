"""What a worker says of its own work."""

from studiolo.service.database import Database
from studiolo.service.records import Kind
from studiolo.service.settings import AdmissionSettings
from studiolo.service.speeds import Effort, Speeds
from tests.service.clock import Clock


def test_waiting_is_no_work_and_nothing_is_counted_twice():
    clock = Clock()
    effort = Effort(clock)
    clock.move(5)
    assert effort.take() == (0, 0.0)
    effort.work()
    clock.move(2)
    effort.work(4)
    clock.move(1)
    assert effort.take() == (4, 3.0)
    clock.move(1)
    effort.work(3)
    effort.rest()
    clock.move(60)
    effort.rest()
    assert effort.take() == (3, 1.0)
    assert effort.take() == (0, 0.0)
    effort.work(1)  # the first steps after a rest took no time that was seen
    assert effort.take() == (1, 0.0)


def test_a_worker_that_is_busy_before_its_first_step_is_not_known_to_be_slow(database: Database):
    speeds = Speeds(database)

    def speed() -> float:
        return database.read(lambda session: speeds.steps_per_s(session, Kind.IDENTITY))

    speeds.report("trainer", Kind.IDENTITY, 0, 3.0)
    assert speed() == AdmissionSettings().identity_steps_per_s
    speeds.report("trainer", Kind.IDENTITY, 8, 2.0)
    assert speed() == 4.0

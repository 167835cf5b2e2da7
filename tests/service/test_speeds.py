"""What a worker says of its own work."""

from studiolo.service.speeds import Effort
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

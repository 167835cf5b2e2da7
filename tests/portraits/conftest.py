import pytest

from tests.portraits.job_rows import ODD_NAME, Job


@pytest.fixture
def job() -> Job:
    """A plain person in two styles, one of odd name, and one that failed."""
    made = Job()
    made.add("anna", ("studio", "warm-film"))
    made.add(ODD_NAME)
    made.add("nobody", failed=True)
    return made

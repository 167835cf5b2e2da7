"""The pages' templates."""

from functools import lru_cache

import jinja2


@lru_cache(maxsize=1)
def templates() -> jinja2.Environment:
    """Those of gallery and delivery: markup in names is escaped, a name that nobody gave is an error."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("studiolo.portraits", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

"""The pages' templates."""

from functools import lru_cache

import jinja2


@lru_cache(maxsize=2)
def templates(package: str = "studiolo.portraits") -> jinja2.Environment:
    """Those in the folder `templates` of `package`, of gallery and delivery when not given.

    Markup in names is escaped; a name that nobody gave is an error.
    """
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

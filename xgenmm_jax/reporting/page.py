"""The shell of a page: one HTML file that loads nothing; all text in it is escaped.

A page runs nothing unless its template has a block `script`. Then a Content-Security-Policy lets the browser run that
script and nothing else, apply the page's own style sheet alone, and load nothing but pictures inside the page.

A page is a template that extends "page.html" and may import the macros of "parts.html":

    {% extends "page.html" %}
    {% from "parts.html" import example_card %}
    {% block title %}Wrong answers{% endblock %}
    {% block content %}{% for item in items %}{{ example_card(item) }}{% endfor %}{% endblock %}
"""

import base64
import functools
import hashlib
from typing import Any

import jinja2


def render_template(package: str, name: str, /, **values: Any) -> str:
    """The page of the template `name` in the folder `templates` of a package.

    values: what the template reads; one that it reads and does not get is an error. refresh_s: seconds after which a
    browser loads the page again, 0 for a page that is finished.
    """
    return _environment(package).get_template(name).render(values)


@functools.cache
def _environment(package: str) -> jinja2.Environment:
    loaders = [jinja2.PackageLoader(package), jinja2.PackageLoader("xgenmm_jax.reporting")]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["sha256"] = _sha256
    return environment


def _sha256(text: str) -> str:
    """Of a script or a style sheet, as a Content-Security-Policy names it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def minutes(seconds: float) -> str:
    """45 -> "45 s", 200 -> "3 min 20 s", 4000 -> "1 h 7 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def count_in_words(number: int) -> str:
    """0 -> "none", 5 -> "five", 10 -> "10"."""
    words = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    return words[number] if number < len(words) else str(number)

"""The templates that every page is made with; they escape all they are given."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from pocketvit.report import text


def page_environment() -> Environment:
    """The templates, with the report's ways of writing numbers as filters."""
    environment = Environment(
        loader=PackageLoader("pocketvit.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(count=text.count, percent=text.percent, duration=text.duration)
    return environment

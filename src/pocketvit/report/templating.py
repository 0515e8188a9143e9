"""The environment of the page templates, which escape all their inputs."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from pocketvit.report import text


def page_environment() -> Environment:
    """The templates, with the number formats of the reports as filters."""
    environment = Environment(
        loader=PackageLoader("pocketvit.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(count=text.count, percent=text.percent, duration=text.duration)
    return environment

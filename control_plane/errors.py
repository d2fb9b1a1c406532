"""The few errors of Backstay, split by what their reader does next."""


class BackstayError(Exception):
    """Base of every error that Backstay explains to a person: what happened, where, and the next step."""


class InvalidDefinition(BackstayError):
    """A file or a value that a person wrote is wrong: edit it. The message names file, line and field where known."""


class SourceUnavailable(BackstayError):
    """Evidence could not be had (down, slow, partial, malformed): wait. It is never read as good, bad or zero."""


class ActuationRefused(BackstayError):
    """A change was not made and nothing moved: the message says which condition was not met."""


class StaleFence(ActuationRefused):
    """Somebody with a newer fencing token acts now: stop acting, and write nothing more."""


class ToolMissing(BackstayError):
    """A program that Backstay starts is not on this machine, or too old: the message says how to get it."""

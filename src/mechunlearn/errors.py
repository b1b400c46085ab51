"""The one exception of the package: a sentence for the user, printed without a traceback."""


class UserError(Exception):
    """Something the user can put right. The message is one sentence: what, its value, what is allowed."""


class ConfigError(UserError):
    """A study's configuration is not usable."""


class SourceError(UserError):
    """A model or data source is missing, truncated or not what its checksum says."""


class FactError(UserError):
    """Facts are malformed, or the model knows too few of them."""


class ArtifactError(UserError):
    """A file on disk is missing, corrupt, or belongs to something else."""


class DivergenceError(UserError):
    """Training produced a non-finite or growing loss."""

"""Former place of `antefix_server.rounds.runner`."""

from antefix.common.deprecation import former_module

__getattr__ = former_module(__name__, "antefix_server.rounds.runner")

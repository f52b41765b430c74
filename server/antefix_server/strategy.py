"""Former place of `antefix_server.rounds.strategy`."""

from antefix.common.deprecation import former_module

__getattr__ = former_module(__name__, "antefix_server.rounds.strategy")

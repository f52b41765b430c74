"""Former place of `antefix_server.grants.epochs`."""

from antefix.common.deprecation import former_module

__getattr__ = former_module(__name__, "antefix_server.grants.epochs")

"""Why a row cannot be used."""


class UnusableRowError(Exception):
    """A row breaks one of the rules for examples; the message is the reason stored with it."""

"""Networks and blocks that methods share; they take explicit arguments and never see the options."""

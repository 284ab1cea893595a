"""The judges, one a file: a Settings model that is one entry of `judges:` in the configuration, and what it builds."""

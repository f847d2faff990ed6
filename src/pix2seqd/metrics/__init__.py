"""The field's metrics, each additive: `a + b` of two processes equals one process that saw everything."""

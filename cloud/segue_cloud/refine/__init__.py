"""Which tokens of a prompt are worth keeping on the device (P/D-Device).

:mod:`base` says what a scorer is, :mod:`attention` and :mod:`key_norm` are the
scorers, :mod:`guards` knows what may neither be dropped nor cut, :mod:`ranges`
turns scores into the list, :mod:`refiner` watches a prefill and makes it.
"""

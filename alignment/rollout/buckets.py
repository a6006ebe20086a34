"""The few sizes that batches of fixed shapes have."""

COLUMNS = 64  # of the cache: attention reads a multiple of this


def bucket(count: int, unit: int = 1) -> int:
    """Return the smallest of 1, 2, 3, 4, 6, 8, 12, 16, 24, ... units that holds `count`; at most a third is empty."""
    units = -(-count // unit)
    power = 1 << (units - 1).bit_length()
    between = power // 4 * 3
    return unit * (between if between >= units else power)

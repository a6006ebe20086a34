"""Generated inputs are the same on every machine and in every run, and take no longer where the machine is slow."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "hostile", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("hostile")

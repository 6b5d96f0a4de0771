"""For all tests: hypothesis minds what is true, not how long a busy machine takes."""
from hypothesis import settings

settings.register_profile("wisp", deadline=None)
settings.load_profile("wisp")

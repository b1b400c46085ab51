"""mechunlearn: where should knowledge be edited or unlearned so that it stays gone?"""

__version__ = "0.1.0"

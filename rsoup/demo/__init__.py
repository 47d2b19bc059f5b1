"""The demo: two experts with rewards in tension, trained in seconds, and the soups between them."""

from rsoup.demo.run import DemoResult, DemoRow, run

__all__ = ["DemoResult", "DemoRow", "run"]

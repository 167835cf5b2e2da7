"""The page as Gradio's blocks: a tab a module. Its sessions are in one process."""

from typing import Any

import gradio as gr

from web.page import album, data, edit, jobs, portraits, views
from web.page.studio import Studio

TABS = (album, portraits, edit, jobs, data)
"""From left to right. Each has `TITLE` and `build(studio, blocks, tab)`, which may return a timer that runs while the
tab is shown."""


def build_blocks(studio: Studio) -> gr.Blocks:
    """All of the page below its sign-in."""
    with gr.Blocks(title="Studiolo", analytics_enabled=False) as blocks:
        gr.HTML(views.header(), elem_id="top")
        timers: dict[str, gr.Timer] = {}
        with gr.Tabs(elem_id="tabs") as tabs:
            for module in TABS:
                with gr.Tab(module.TITLE) as tab:
                    timer = module.build(studio, blocks, tab)
                if timer is not None:
                    timers[module.TITLE] = timer

        def shown(event: gr.SelectData) -> Any:
            return [gr.Timer(active=title == event.value) for title in timers]

        tabs.select(shown, None, list(timers.values()), show_progress="hidden", api_visibility="private")
    blocks.queue(default_concurrency_limit=None, max_size=1000)
    return blocks

"""The page's look: Gradio's theme in the colours of the gallery. Fonts come with Gradio, nothing from elsewhere."""

from typing import Any

import gradio as gr

HEAD = """\
<link rel="stylesheet" href="page.css" />
<link rel="icon" href="data:," />
<meta name="color-scheme" content="light dark" />
"""

_COLOURS = {
    "body_background_fill": "var(--paper)",
    "body_text_color": "var(--ink)",
    "body_text_color_subdued": "var(--faint)",
    "background_fill_primary": "var(--card)",
    "background_fill_secondary": "var(--sunk)",
    "border_color_primary": "var(--line)",
    "border_color_accent": "var(--accent)",
    "color_accent_soft": "var(--accent-soft)",
    "link_text_color": "var(--accent)",
    "block_background_fill": "var(--card)",
    "block_border_color": "var(--line)",
    "block_label_background_fill": "transparent",
    "block_label_border_color": "transparent",
    "block_label_text_color": "var(--faint)",
    "block_title_text_color": "var(--ink)",
    "block_info_text_color": "var(--faint)",
    "panel_background_fill": "var(--card)",
    "panel_border_color": "var(--line)",
    "input_background_fill": "var(--paper)",
    "input_background_fill_focus": "var(--paper)",
    "input_border_color": "var(--line)",
    "input_border_color_focus": "var(--accent)",
    "input_placeholder_color": "var(--faint)",
    "checkbox_background_color": "var(--card)",
    "checkbox_background_color_selected": "var(--accent)",
    "checkbox_border_color": "var(--faint)",
    "checkbox_border_color_selected": "var(--accent)",
    "checkbox_label_background_fill": "var(--card)",
    "checkbox_label_background_fill_hover": "var(--sunk)",
    "checkbox_label_background_fill_selected": "var(--accent-soft)",
    "checkbox_label_border_color": "var(--line)",
    "checkbox_label_border_color_selected": "var(--accent)",
    "checkbox_label_text_color": "var(--ink)",
    "checkbox_label_text_color_selected": "var(--ink)",
    "slider_color": "var(--accent)",
    "button_primary_background_fill": "var(--accent)",
    "button_primary_background_fill_hover": "var(--accent-deep)",
    "button_primary_border_color": "var(--accent)",
    "button_primary_text_color": "var(--on-accent)",
    "button_secondary_background_fill": "var(--card)",
    "button_secondary_background_fill_hover": "var(--sunk)",
    "button_secondary_border_color": "var(--line)",
    "button_secondary_text_color": "var(--ink)",
    "button_cancel_background_fill": "var(--card)",
    "button_cancel_background_fill_hover": "var(--stop-soft)",
    "button_cancel_border_color": "var(--stop)",
    "button_cancel_text_color": "var(--stop)",
}
"""The same in light and dark: the names change their values, in `page.css`."""
_SHAPES = {
    "color_accent": "var(--accent)",  # Gradio has it once for light and dark
    "block_border_width": "1px",
    "block_radius": "14px",
    "block_shadow": "none",
    "block_label_text_weight": "600",
    "block_title_text_weight": "600",
    "input_border_width": "1px",
    "input_radius": "10px",
    "input_shadow": "none",
    "input_shadow_focus": "0 0 0 3px var(--accent-soft)",
    "button_large_radius": "12px",
    "button_medium_radius": "10px",
    "button_small_radius": "10px",
    "button_primary_shadow": "none",
    "button_large_text_weight": "600",
    "layout_gap": "18px",
    "form_gap_width": "0px",
}


def theme() -> gr.themes.Base:
    """The theme."""
    made = gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.stone,
        text_size=gr.themes.sizes.text_md,
        radius_size=gr.themes.sizes.radius_md,
    )
    values: dict[str, Any] = {**_SHAPES, **_COLOURS, **{f"{name}_dark": value for name, value in _COLOURS.items()}}
    return made.set(**values)

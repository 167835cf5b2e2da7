"""The studio page: Gradio as a client of `/v1`, behind a sign-in of its own."""

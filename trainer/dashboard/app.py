"""The application that Streamlit's server runs."""

from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware
from starlette.routing import Route

from trainer.dashboard.addresses import Addresses
from trainer.dashboard.report_route import report

app = st.App(
    Path(__file__).with_name("pages.py"),
    routes=[Route("/report/{number:int}", report)],
    middleware=[Middleware(Addresses)],
)

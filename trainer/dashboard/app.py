"""The application that Streamlit's server runs."""

from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware

from trainer.dashboard.addresses import Addresses

app = st.App(Path(__file__).with_name("pages.py"), middleware=[Middleware(Addresses)])

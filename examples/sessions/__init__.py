"""What the examples open: made-up sessions, or the one that the command line names."""

from sessions.command_line import chosen_session, chosen_sessions, save_picture
from sessions.imaging import imaging_session
from sessions.patch_clamp import patch_clamp_session
from sessions.trials import trials_session

__all__ = [
    "chosen_session",
    "chosen_sessions",
    "imaging_session",
    "patch_clamp_session",
    "save_picture",
    "trials_session",
]

//! The shim that servers under test are started with (`LD_PRELOAD`).

"""Programs that instruments watch: valgrind, emulators, LeakSanitizer, a clock."""

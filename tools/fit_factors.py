from ifguide.cli import main

raise SystemExit(main(["fit-factors", *__import__("sys").argv[1:]]))

from ifguide.cli import main

raise SystemExit(main(["quickstart", *__import__("sys").argv[1:]]))

from ifguide.cli import main

raise SystemExit(main(["score", *__import__("sys").argv[1:]]))

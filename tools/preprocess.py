from ifguide.cli import main

raise SystemExit(main(["preprocess", *__import__("sys").argv[1:]]))

from ifguide.cli import main

raise SystemExit(main(["build-mask", *__import__("sys").argv[1:]]))

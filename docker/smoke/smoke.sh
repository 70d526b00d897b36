#!/bin/sh
# Make a corpus with a mask here, then train on it with GPT-NeoX on the CPU. GPT_NEOX_PATH names the checkout.
set -eu
smoke=$(cd "$(dirname "$0")" && pwd)
python "$smoke/make_data.py"
python "$smoke/../../deepy.py" train.py -d "$smoke" smoke.yml --engine neox --device cpu

"""A `gcloud` that records how it was called and plays Cloud: a queued resource, its nodes, and folders for workers.

It reads and keeps `cloud.json` in $STUB. What a command sends over ssh is run by bash, as a worker's login shell would,
with the worker's folder as its home. A `plan` entry answers the next call whose words it names instead:
{"words": ["queued-resources", "create"], "code": 1, "err": "quota"}; {"words": ["ssh"], "unreachable": [1]} lets ssh
not reach some workers.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading

STUB = os.environ["STUB"]
NOT_FOUND = "ERROR: (gcloud) NOT_FOUND: Resource was not found"


def main(argv):
    with open(f"{STUB}/cloud.json", "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        cloud = json.load(file)
        with open(f"{STUB}/calls.jsonl", "a") as calls:
            calls.write(json.dumps(argv) + "\n")
        planned = next((entry for entry in cloud["plan"] if set(entry["words"]) <= set(argv)), {})
        if planned:
            cloud["plan"].remove(planned)
        code = planned.get("code")
        if code is None and argv[3] != "ssh":
            code = answer(argv, cloud)
        file.seek(0)
        file.truncate()
        json.dump(cloud, file)
    if code is None:
        code = ssh(argv, cloud, planned.get("unreachable", []))
    sys.stdout.write(planned.get("out", ""))
    sys.stderr.write(planned.get("err", ""))
    return code


def answer(argv, cloud):
    kind, verb, name = argv[2], argv[3], argv[4]
    if verb == "create":
        cloud["states"] = list(cloud["created"])
    elif verb == "delete":
        cloud["states"], cloud["nodes"] = ["NONE"], {}
        shutil.rmtree(f"{STUB}/workers", ignore_errors=True)
    elif verb == "scp":
        *files, target = [word for word in argv[4:] if not word.startswith("-")]
        for home in homes(target.removesuffix(":."), range(cloud["workers"])).values():
            for path in files:
                shutil.copy(path, home)
    else:
        if kind == "queued-resources":
            text = cloud["states"].pop(0) if len(cloud["states"]) > 1 else cloud["states"][0]
            if "failedData" in " ".join(argv):
                text = "no capacity"
        elif "len" in " ".join(argv):
            text = str(cloud["workers"])
        else:
            text = cloud["nodes"].get(name, "READY")
        if text == "NONE":
            print(NOT_FOUND, file=sys.stderr)
            return 1
        print(text)
    return 0


def ssh(argv, cloud, unreachable):
    options = dict(word[2:].split("=", 1) for word in argv if word.startswith("--"))
    asked = range(cloud["workers"]) if options["worker"] == "all" else map(int, options["worker"].split(","))
    codes = {}

    def run(worker, home):
        environment = {**os.environ, "HOME": home, "STUB_WORKER": str(worker)}
        # gcloud splits the command at spaces and ssh joins it again; the login shell parses it.
        command = " ".join(options["command"].split(" "))
        codes[worker] = subprocess.run(["bash", "-c", command], cwd=home, env=environment).returncode

    reached = homes(argv[4], [worker for worker in asked if worker not in unreachable])
    threads = [threading.Thread(target=run, args=item) for item in reached.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 255 if unreachable else next((code for _, code in sorted(codes.items()) if code), 0)


def homes(node, workers):
    folders = {worker: f"{STUB}/workers/{node}/{worker}" for worker in workers}
    for folder in folders.values():
        os.makedirs(folder, exist_ok=True)
    return folders


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

# Sourced: fetch_wheel FOLDER REQUIREMENT fetches one wheel for Linux on x86-64 and Python 3.12, without what it needs.
fetch_wheel() {
  local platforms=() tag
  for tag in manylinux_2_28 manylinux_2_27 manylinux_2_24 manylinux_2_17 manylinux2014 manylinux2010 manylinux1; do
    platforms+=(--platform "${tag}_x86_64")
  done
  "${python:-python3}" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --python-version 3.12 --implementation cp "${platforms[@]}" -d "$1" "$2"
}

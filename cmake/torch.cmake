# Where libtorch is: in the torch package of STAGECOACH_PYTHON. Adds it to CMAKE_PREFIX_PATH for find_package(Torch).
#
# A torch file costs a compiler 6-13 s and about 1 GB: `torch_pool` lets ninja run two of them at once, whatever -j says.
set_property(GLOBAL PROPERTY JOB_POOLS torch_pool=2)

if(STAGECOACH_COMPUTE)
  # The folder is looked up, not imported: loading torch takes seconds in a CUDA build.
  execute_process(
    COMMAND ${STAGECOACH_PYTHON} -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
    OUTPUT_VARIABLE torch_dir OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE torch_missing)
  if(torch_missing)
    message(FATAL_ERROR "${STAGECOACH_PYTHON} has no torch: name one that has with -DSTAGECOACH_PYTHON=…, "
                        "or configure with -DSTAGECOACH_COMPUTE=OFF.")
  endif()
  list(PREPEND CMAKE_PREFIX_PATH ${torch_dir}/share/cmake)
endif()

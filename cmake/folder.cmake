# stagecoach_folder(name DEPENDS … [TEST_DEPENDS …]): the library of one src/ folder and its tests, from the files in it.
#
#   x.cpp        goes into the library stagecoach_<name>
#   x_test.cpp   goes into the GoogleTest program <name>_test, one ctest entry <name>.<suite>.<test> a test
#   x_fuzz.cpp   becomes the libFuzzer program fuzz/<name>_x_fuzz where STAGECOACH_FUZZ is on; all of them: target `fuzzers`
#   x_bench.cpp  becomes the program <name>_x_bench, built only when asked for
#
# A nested folder's slash becomes an underscore: world/sim gives stagecoach_world_sim and world_sim_test.
include(GoogleTest)

add_library(stagecoach_options INTERFACE)
target_include_directories(stagecoach_options INTERFACE ${CMAKE_SOURCE_DIR}/src)
target_compile_options(stagecoach_options INTERFACE -Wall -Wextra -Werror -Wno-missing-field-initializers)
# g++ 12 reports members of the other alternatives of a std::variant as uninitialized when it inlines a move at -O1 and above.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(stagecoach_options INTERFACE -Wno-maybe-uninitialized)
endif()

if(STAGECOACH_FUZZ)
  add_custom_target(fuzzers)
  file(WRITE ${CMAKE_BINARY_DIR}/fuzz/targets.txt "")
  set(sanitizers -fsanitize=address,undefined -fno-sanitize-recover=undefined)
  target_compile_options(stagecoach_options INTERFACE ${sanitizers} -fsanitize=fuzzer-no-link)
  target_link_options(stagecoach_options INTERFACE ${sanitizers})
endif()

function(stagecoach_folder name)
  cmake_parse_arguments(ARG "" "" "DEPENDS;TEST_DEPENDS" ${ARGN})
  string(REPLACE "/" "_" target "stagecoach_${name}")
  string(REPLACE "/" "_" short "${name}")
  set(dir ${CMAKE_SOURCE_DIR}/src/${name})
  file(GLOB all CONFIGURE_DEPENDS ${dir}/*.cpp)
  set(tests ${all})
  list(FILTER tests INCLUDE REGEX "_test\\.cpp$")
  set(fuzzers ${all})
  list(FILTER fuzzers INCLUDE REGEX "_fuzz\\.cpp$")
  set(benches ${all})
  list(FILTER benches INCLUDE REGEX "_bench\\.cpp$")
  set(sources ${all})
  list(FILTER sources EXCLUDE REGEX "_(test|fuzz|bench)\\.cpp$|/main\\.cpp$")
  if(sources)
    add_library(${target} STATIC ${sources})
    target_link_libraries(${target} PUBLIC stagecoach_options ${ARG_DEPENDS})
  else()
    add_library(${target} INTERFACE)
    target_link_libraries(${target} INTERFACE stagecoach_options ${ARG_DEPENDS})
  endif()
  if(tests)
    add_executable(${short}_test ${tests})
    target_link_libraries(${short}_test PRIVATE ${target} ${ARG_TEST_DEPENDS} GTest::gmock GTest::gtest_main)
    gtest_discover_tests(${short}_test TEST_PREFIX "${short}."
      PROPERTIES ENVIRONMENT STAGECOACH_BUILD_DIR=${CMAKE_BINARY_DIR} DISCOVERY_TIMEOUT 60)
  endif()
  foreach(file ${fuzzers})
    if(STAGECOACH_FUZZ)
      get_filename_component(stem ${file} NAME_WE)
      add_executable(${short}_${stem} ${file})
      target_link_libraries(${short}_${stem} PRIVATE ${target} -fsanitize=fuzzer)
      set_target_properties(${short}_${stem} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
      add_dependencies(fuzzers ${short}_${stem})
      file(APPEND ${CMAKE_BINARY_DIR}/fuzz/targets.txt "${short}_${stem}\n")
    endif()
  endforeach()
  foreach(file ${benches})
    get_filename_component(stem ${file} NAME_WE)
    add_executable(${short}_${stem} EXCLUDE_FROM_ALL ${file})
    target_link_libraries(${short}_${stem} PRIVATE ${target})
  endforeach()
endfunction()

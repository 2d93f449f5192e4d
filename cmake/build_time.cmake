# What makes a clean build short without changing what is built.

# Tests compute little of their own, and what they test is compiled as it is shipped.
get_property(programs GLOBAL PROPERTY COVEY_TEST_PROGRAMS)
foreach(program IN LISTS programs)
  target_compile_options(${program} PRIVATE $<$<CONFIG:Release>:-O1>)
endforeach()

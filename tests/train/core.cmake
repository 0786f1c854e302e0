# The training core: objective, network, optimizers, ranks together.
vicreg_test(train_objective_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/objective_test.cc ${CMAKE_CURRENT_LIST_DIR}/group_test.cc LIBS vicreg_rank_threads vicreg_train_core)
vicreg_test(train_other_objectives_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/other_objectives_test.cc
  LIBS vicreg_rank_threads vicreg_train_core)
vicreg_test(train_objectives_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/objectives_test.cc ${CMAKE_CURRENT_LIST_DIR}/learner_test.cc
  LIBS vicreg_rank_threads vicreg_train vicreg_train_core)
vicreg_test(train_model_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/model_test.cc ${CMAKE_CURRENT_LIST_DIR}/channel_passes_test.cc LIBS vicreg_rank_threads vicreg_train_core)
vicreg_test(train_encoders_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/model_encoders_test.cc LIBS vicreg_rank_threads vicreg_train_core)
vicreg_test(train_optim_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/optim_test.cc LIBS vicreg_train vicreg_train_core)
vicreg_test(train_parity_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/parity_test.cc LIBS vicreg_train_cli vicreg_train_core
  LABEL process TIMEOUT 180)
add_dependencies(train_parity_test vicreg-train)
vicreg_test(train_objective_tool_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/objective_tool_test.cc LIBS vicreg_train vicreg_train_core
  LABEL process TIMEOUT 240)
add_dependencies(train_objective_tool_test vicreg-train)
vicreg_test(train_placement_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/placement_test.cc ${CMAKE_CURRENT_LIST_DIR}/strict_device.cc
  LIBS vicreg_train vicreg_train_core)

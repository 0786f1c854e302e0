# The data path, checkpoints, evaluation and whole runs.
vicreg_test(train_data_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/data_test.cc ${CMAKE_CURRENT_LIST_DIR}/npy_test.cc
  ${CMAKE_CURRENT_LIST_DIR}/samples_test.cc LIBS vicreg_train_data)
vicreg_test(train_checkpoint_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/checkpoint_test.cc LIBS vicreg_train vicreg_train_core)
vicreg_test(train_run_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/run_test.cc ${CMAKE_CURRENT_LIST_DIR}/device_test.cc
  ${CMAKE_CURRENT_LIST_DIR}/modalities_run_test.cc LIBS vicreg_train vicreg_train_core)
# Branches and views: the network, and whole jobs of them.
vicreg_test(train_branches_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/branches_test.cc LIBS vicreg_rank_threads vicreg_train vicreg_train_core)

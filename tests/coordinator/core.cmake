# Decisions, the store and the services.
vicreg_test(coordinator_core_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/core_test.cc LIBS vicreg_core)
vicreg_test(coordinator_schedule_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/schedule_test.cc LIBS vicreg_core)
vicreg_test(coordinator_walk_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/walk_test.cc LIBS vicreg_store TIMEOUT 300)
vicreg_test(coordinator_store_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/store_test.cc LIBS vicreg_store)
vicreg_test(coordinator_service_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/service_test.cc LIBS vicreg_service TIMEOUT 300)
vicreg_test(coordinator_changes_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/changes_test.cc LIBS vicreg_service)
vicreg_test(coordinator_rendezvous_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/rendezvous_test.cc LIBS vicreg_service)
vicreg_test(coordinator_outage_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/outage_test.cc LIBS vicreg_service)
